"""`image-mirror prune`: removes the copies that nobody has pulled for so many days, and that no cluster runs."""

from image_mirror.cli.commands.prune.command import prune

__all__ = ("prune",)
