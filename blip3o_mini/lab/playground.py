"""A playground for a notebook: type a prompt, press a button, see the picture.

The first picture is a static figure, emitted before any widget, so that a reader without a running
kernel (GitHub, paper) sees what there is to see; nothing in a lesson depends on the widgets.
"""

from __future__ import annotations

from .show import emit, figure_of

FIRST_PROMPT = "a red circle to the left of a blue square"


def playground(model, prompt: str = FIRST_PROMPT, *, seed: int = 0, num_images: int = 4) -> None:
    """Show pictures for a prompt; with ipywidgets there, also the controls to make others."""
    emit(*_figure(model, prompt, seed, model.config.guidance_scale, num_images))
    try:
        import ipywidgets as widgets
        from IPython.display import display
    except ImportError:
        return
    display(build_controls(widgets, model, prompt, seed, num_images))


def build_controls(widgets, model, prompt: str, seed: int, num_images: int):
    """The box of widgets: prompt, seed, guidance, button, and the place for the pictures."""
    wide = widgets.Layout(width="34em")
    text = widgets.Text(prompt, description="prompt", layout=wide, continuous_update=False)
    number = widgets.BoundedIntText(seed, min=0, max=10**6, description="seed")
    guidance = widgets.FloatSlider(
        model.config.guidance_scale, min=1, max=8, step=0.5, description="guidance", continuous_update=False
    )
    button = widgets.Button(description="draw", button_style="primary", tooltip="draw the prompt")
    place = widgets.Output()

    def draw(_) -> None:
        button.disabled = True  # a second press while the first is at work would only queue up
        try:
            with place:
                place.clear_output(wait=True)
                try:
                    emit(*_figure(model, text.value, number.value, guidance.value, num_images))
                except ValueError as error:  # an empty or too long prompt: say so, keep the controls
                    print(error)
        finally:
            button.disabled = False

    button.on_click(draw)
    return widgets.VBox([text, widgets.HBox([number, guidance, button]), place])


def _figure(model, prompt: str, seed: int, guidance: float, num_images: int):
    """The figure and its alternative text."""
    images = model.generate(prompt, num_images=num_images, seed=seed, guidance_scale=guidance)
    titles = [f"picture {index + 1}" for index in range(len(images))]
    return figure_of(images, titles), f"{len(images)} pictures drawn for the prompt: {prompt}"
