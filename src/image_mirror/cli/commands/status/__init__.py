"""`image-mirror status`: all copies and their states, or one copy in full."""

from image_mirror.cli.commands.status.command import status

__all__ = ("status",)
