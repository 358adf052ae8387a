"""`image-mirror demo`: runs the main job on emulated AWS."""

from image_mirror.cli.commands.demo.command import demo

__all__ = ("demo",)
