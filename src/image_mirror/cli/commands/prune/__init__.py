"""`image-mirror prune`: removes copies that nobody has pulled for a number of days, and that no cluster runs."""

from image_mirror.cli.commands.prune.command import prune

__all__ = ("prune",)
