#!/bin/bash
# The second command of a build in image-pulling.yaml: it runs copy.py, which copies one image.
# `make templates` puts what follows the first empty line into the template, with an archive of copy.py and the modules
# that it imports in the place of its name.
#
# CodeBuild runs each command as a separate script, under "set -a". It passes exported variables to the next command only
# if the script reaches its end. So the result is exported here, and the next command, short enough for CodeBuild's error
# message, fails with the exit code of that result.

set +e
work=$(mktemp -d)
# All files of the program, unchanged: `tr -d ' ' | base64 -d | gzip -d >copy.pyz`, then `unzip copy.pyz`, shows them.
base64 --decode <<'ARCHIVE' | gzip --decompress >"$work/copy.pyz"
copy.pyz
ARCHIVE
python3 -I "$work/copy.pyz" "$work/outcome"
COPY_EXIT_CODE=$?
COPY_RESULT=UNEXPLAINED COPY_REASON='the program of the build ended without a result; the log of the build says where'
if [[ -f $work/outcome ]]; then { read -r COPY_RESULT; read -r COPY_REASON; read -r COPY_DIGEST; read -r COPY_SIGNATURES; } <"$work/outcome"; fi
export COPY_RESULT COPY_REASON COPY_DIGEST COPY_SIGNATURES COPY_EXIT_CODE
rm -rf "$work" "${CRANE:+"${CRANE%/*}"}"
