"""The little world: scenes that a person enjoys looking at and a program can check exactly.

`scene` says what there is, `render` draws it, `language` and `questions` talk about it, `edits`
changes it, `wording` says it as strangers do, `parse` reads it back from pixels.
"""

from .edits import *
from .language import *
from .parse import *
from .questions import *
from .render import *
from .scene import *
from .wording import *
