"""`image-mirror pods`: which pods cannot pull, why, and what to do; or one pod in full."""

from image_mirror.cli.commands.pods.command import pods

__all__ = ("pods",)
