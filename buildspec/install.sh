#!/bin/bash
# The first command of the build in image-pulling.yaml: it fetches the program that copies.
# `make templates` puts what follows the first empty line into the template; copy.sh says how CodeBuild runs it.

# copy.sh checks whether skopeo was installed: only there is a result code for a failure.
(
  unset CHINA_ACCESS_KEY_ID CHINA_SECRET_ACCESS_KEY REGISTRY_AUTH
  export DEBIAN_FRONTEND=noninteractive
  for pause in 10 30 0; do
    apt-get update -qq && apt-get install -qq -y --no-install-recommends skopeo >/dev/null && break
    sleep "$pause"
  done
) || true
