"""`python -m image_mirror` is `image-mirror`."""

from image_mirror.cli import app

if __name__ == "__main__":
    app(prog_name="image-mirror")
