"""Patches, frames and pixels that work on many images: where they go, how they look, what they are.

torch only; an artefact and a user's logo are read with Pillow.
"""
from .artefact import Artefact
from .learner import Learner, Recipe, Step
from .paint import paint, room_of
from .placement import BesideObjects, Fixed, Frame, OnObjects, Pixels, Placement, Places, Random
from .transforms import Looks, Transforms

__all__ = ['Artefact', 'BesideObjects', 'Fixed', 'Frame', 'Learner', 'Looks', 'OnObjects', 'Pixels',
           'Placement', 'Places', 'Random', 'Recipe', 'Step', 'Transforms', 'paint', 'room_of']
