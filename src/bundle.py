"""Make of the packages that pip has installed into a folder what Lambda is given: python3.13 bundle.py FOLDER.

Adds this package, leaves out what neither function reads, and compiles the rest. A function's folder is read-only in
Lambda: without compiled files each cold start would compile all that it imports.
"""

import gzip
import json
import shutil
import sys
from compileall import compile_dir
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

# The services that the functions call; of all others botocore's models are left out.
SERVICES = ("codebuild", "dynamodb", "ecr", "secretsmanager", "sts")
# For people, and for the build.
_NOT_FOR_LAMBDA = ("__pycache__", "__main__.py", "cli", "py.typed", "registry_login.py", "resources")
_TASK_ROOT = "/var/task"  # where Lambda unpacks a function, and so what tracebacks name


def bundle(folder: Path) -> None:
    """Turn `folder` into the artefact."""
    shutil.rmtree(folder / "bin", ignore_errors=True)  # commands that packages bring along
    ours = Path(__file__).with_name("image_mirror")
    shutil.copytree(ours, folder / ours.name, ignore=shutil.ignore_patterns(*_NOT_FOR_LAMBDA))
    trim(folder / "botocore" / "data")
    # Valid whatever the sources' times, which a zip does not keep. A file that does not compile, perhaps one for
    # a later Python, stays as it is: nothing imports it.
    compile_dir(
        folder,
        quiet=1,
        stripdir=folder,
        prependdir=_TASK_ROOT,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )


def trim(data: Path) -> None:
    """Leave of botocore's `data` what clients of SERVICES read, without its documentation, which is most of it.

    Raises SystemExit where botocore does not have one of them.
    """
    for folder in data.iterdir():
        if folder.is_dir() and folder.name not in SERVICES:
            shutil.rmtree(folder)
    prefixes = {_shorten(path) for service in SERVICES for path in _models(data, service)}
    # 1.2 MB of which each client's making reads all, for the few lines of its own service.
    endpoints = json.loads((data / "endpoints.json").read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: kept for name, kept in partition["services"].items() if name in prefixes}
    (data / "endpoints.json").write_text(json.dumps(endpoints))


def _models(data: Path, service: str) -> list[Path]:
    models = list(data.glob(f"{service}/*/service-2.json*"))
    return models or sys.exit(f"botocore has no model of {service} where it is looked for: {data}")


def _shorten(path: Path) -> str:
    """Write a service's model without documentation and unpacked, and return its name in endpoints.json."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    model = json.loads(text, object_hook=_without_documentation)
    path.unlink()
    path.with_name("service-2.json").write_text(json.dumps(model))
    prefix: str = model["metadata"]["endpointPrefix"]
    return prefix


def _without_documentation(node: dict[str, Any]) -> dict[str, Any]:
    # A member of a structure may have this name too, and is an object then.
    return {name: value for name, value in node.items() if name != "documentation" or not isinstance(value, str)}


if __name__ == "__main__":
    bundle(Path(sys.argv[1]))
