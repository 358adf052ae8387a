#!/bin/bash
# The first command of a build in image-pulling.yaml: it downloads crane, the program that copies.
# `make templates` puts what follows the first empty line into the template; copy.sh says how CodeBuild runs it.

# copy.py ends the build with CRANE_PROBLEM: only there is a result code for a failure. Nothing here sees a key.
CRANE='' CRANE_PROBLEM='' folder=$(mktemp -d)
download() {
  local try said
  for try in 1 2 3; do
    said=$(env -i PATH="$PATH" HOME="$folder" LC_ALL=C curl --fail --silent --show-error --location \
      --proto '=http,https' --connect-timeout 20 --max-time 90 --output "$folder/crane.tar.gz" "$CRANE_URL" 2>&1) && return
    CRANE_PROBLEM="UNREACHABLE crane cannot be downloaded from CraneUrl: ${said//[^[:print:]]/ }"
    [[ $try == 3 ]] || sleep "${CRANE_PAUSE_SECONDS:-10}" # tests set it
  done
  return 1
}
if download; then
  CRANE_PROBLEM=''
  if ! sha256sum --check --status <<<"$CRANE_SHA256  $folder/crane.tar.gz"; then
    CRANE_PROBLEM='UNEXPLAINED the archive at CraneUrl does not have the SHA-256 of crane 0.21.9, so it is not used'
  elif env -i PATH="$PATH" tar --extract --gzip --file "$folder/crane.tar.gz" --directory "$folder" crane; then
    CRANE=$folder/crane
  else
    CRANE_PROBLEM='UNEXPLAINED the archive at CraneUrl cannot be unpacked'
  fi
fi
[[ -n $CRANE ]] || rm -rf "$folder"
printf '%s\n' "${CRANE_PROBLEM:-crane 0.21.9 is at $CRANE}"
export CRANE CRANE_PROBLEM
