"""blip3o_mini: learn, teach and prototype unified multimodal generation, after BLIP3-o (arXiv 2505.09568).

    from blip3o_mini import Blip3oMini
    model = Blip3oMini.from_pretrained("toy")
    model.generate("a red circle to the left of a blue square")[0].save("picture.png")
"""

__version__ = "0.1.0"
__all__ = ["Blip3oMini"]


def __getattr__(name: str):
    # The model needs torch, which takes seconds to import; `blip3o-mini --help` must not wait for it.
    if name == "Blip3oMini":
        from .model import Blip3oMini

        return Blip3oMini
    raise AttributeError(f"module 'blip3o_mini' has no attribute {name!r}")
