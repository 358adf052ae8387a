"""`image-mirror status`: every copy and how it stands, or one in full."""

from image_mirror.cli.commands.status.command import status

__all__ = ("status",)
