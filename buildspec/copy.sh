#!/bin/bash
# The copy of one image: the second command of the build in image-pulling.yaml.
# `make templates` puts what follows the first empty line into the template.
#
# CodeBuild runs each command as a separate script, under "set -a". It passes exported variables to the next command only
# if the script reaches its end. So the work is done in a subshell, which may exit anywhere; its result is exported, and
# the next command, short enough for CodeBuild's error message, fails with the exit code of that result.
#
# SC2053: TARGET_REGISTRY is unquoted on purpose: it is a pattern if the template has no parameter for the account in
# China. SC2015: A && B || C is not meant as an "if": C must run if A or B is false.
# shellcheck disable=SC2053,SC2015

set +e
COPY_REASON='the build script ended before its time; the log of the build says where'
work=$(mktemp -d)
(
  set +a -euo pipefail
  export LC_ALL=C
  # Only aws, below, gets a key; no other program does.
  export -n CHINA_ACCESS_KEY_ID CHINA_SECRET_ACCESS_KEY REGISTRY_AUTH

  declare -A exit_codes=(
    [COPIED]=0 [UNEXPLAINED]=1 [RATE_LIMITED]=29 [BAD_INPUT]=40 [TARGET_LOGIN]=41 [DENIED]=43
    [NOT_FOUND]=44 [UNREACHABLE]=50
  )
  finish() { # RESULT REASON
    printf '%s\n%s\n' "$1" "$2" >"$work/outcome"
    printf '%s: %s\n' "$1" "$2"
    exit "${exit_codes[$1]}"
  }

  # 1. The input. The grammar and the destination are those of parse_reference and
  # destination_of in reference.py, so that a stolen key cannot put one image in another's place.
  # No reason quotes a value: a variable of type SECRETS_MANAGER holds a secret.
  image=${DOCKER_IMAGE:-}
  target=${NEW_DOCKER_IMAGE:-}
  host='[a-z0-9]+((\.|-+)[a-z0-9]+)*(:[0-9]+)?'
  component='[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*'
  version='(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[a-f0-9]{64})'
  [[ ${#image} -le 1024 && $image =~ ^$host/$component(/$component)*$version$ ]] ||
    finish BAD_INPUT 'DOCKER_IMAGE is not written HOST/PATH:TAG or HOST/PATH@sha256:DIGEST'
  source_host=${image%%/*}
  path=${image#*/}
  path=${path%%[:@]*}
  version=${image#"$source_host/$path"}
  [[ $source_host == *[.:]* || $source_host == localhost ]] && [[ $source_host != index.docker.io ]] ||
    finish BAD_INPUT 'DOCKER_IMAGE does not begin with the host of a registry, such as docker.io'
  [[ $source_host != docker.io || $path == */* ]] ||
    finish BAD_INPUT 'DOCKER_IMAGE: an official image of docker.io is docker.io/library/NAME'
  if [[ $version == @* ]]; then
    tag=digest-sha256-${version#@sha256:}
  else
    tag=${version#:}
    [[ ! $tag =~ ^(digest-)?sha256-[a-f0-9]{64}$ ]] ||
      finish BAD_INPUT 'DOCKER_IMAGE: tags of the form sha256-<hex> and digest-sha256-<hex> are reserved'
  fi
  registry=${target%%/*}
  [[ $registry =~ ^$host$ && $registry == $TARGET_REGISTRY ]] ||
    finish BAD_INPUT 'NEW_DOCKER_IMAGE is not in the registry of the parameters Region and ChinaAccountId'
  repo=$registry/$REPOSITORY_PREFIX/${source_host/:/_}/$path
  [[ ${#repo} -le 255 ]] ||
    finish BAD_INPUT 'the name is too long: with its registry, a repository has at most 255 characters'
  [[ $target == "$repo:$tag" ]] ||
    finish BAD_INPUT 'NEW_DOCKER_IMAGE is not the copy of DOCKER_IMAGE; is RepositoryPrefix the same in China?'

  # 2. The key for China.
  region=${CHINA_REGION:-}
  access_key_id=${CHINA_ACCESS_KEY_ID:-}
  secret_access_key=${CHINA_SECRET_ACCESS_KEY:-}
  region=${region//[[:space:]]/}
  access_key_id=${access_key_id//[[:space:]]/}
  secret_access_key=${secret_access_key//[[:space:]]/}
  [[ $region =~ ^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$ ]] ||
    finish TARGET_LOGIN 'Region in the secret ImagePullSecret is not a region; write one such as cn-northwest-1'
  [[ -n $access_key_id ]] ||
    finish TARGET_LOGIN 'AccessKey in the secret ImagePullSecret is empty; fill in the access key ID for China'
  [[ -n $secret_access_key ]] ||
    finish TARGET_LOGIN 'AccessSecretKey in the secret ImagePullSecret is empty; fill in the key for China'
  command -v skopeo >/dev/null ||
    finish UNREACHABLE 'apt could not install skopeo; the log of the build says why'

  # Ends the copy with the result that fits what the last program wrote to $work/errors, or with RESULT
  # if nothing fits. The reason is the last line there, without anything that gives access.
  password=
  explain() { # RESULT
    local errors reason said secret
    errors=$(tr -c '[:print:]\n' ' ' <"$work/errors" | sed -E \
      -e 's#^time="[^"]*" level=[a-z]+ msg=##' -e 's#^"(.*)"$#\1#' \
      -e 's#\\[nt]# #g' -e 's#\\(["\\])#\1#g' \
      -e 's#(https?://)[^/@" ]*@#\1#g' -e 's#(https?://[^?" ]*)\?[^" ]*#\1#g' \
      -e 's#(basic|bearer|password|token)([ =:]+)[A-Za-z0-9+/=._~-]{16,}#\1\2***#gI' \
      -e 's# +# #g' -e '/^ ?$/d')
    for secret in "$access_key_id" "$secret_access_key" "$password"; do
      [[ -z $secret ]] || errors=${errors//"$secret"/***}
    done
    printf '%s\n' "$errors" | tail -n 20
    reason=${errors##*$'\n'}
    # The name of an image may look like an error, so names are removed before the search.
    said=$(printf '%s' "${reason,,}" |
      sed -E -e 's#[^ ]*/[^ ]*##g' -e 's#manifest [^ ]+ (in|to) #manifest #g')
    said=${said//"$source_host"/}
    said=${said//"$registry"/}
    # The cause is at the end of the line, and may contain two digests.
    [[ ${#reason} -le 300 ]] || reason="${reason:0:105} ... ${reason: -190}"
    reason=${reason:-the program ended without a message}

    local status='status[^0-9]{0,30}'
    local limited="toomanyrequests|too many requests|rate exceeded|rate limit|${status}429"
    local denied="unauthorized|unauthenticated|denied|forbidden|not authorized|invalid username|${status}40[13]"
    local missing="(manifest|name|blob|repository) unknown|(repository|artifact|manifest)[^:]* not found"
    missing+="|${status}404"
    local network="no such host|server misbehaving|dial tcp|could not connect|tls: |x509|stream error"
    network+="|connection (refused|reset|closed|was closed)|broken pipe|timeout|timed out|deadline exceeded"
    network+="|[^a-z]eof|${status}5[0-9][0-9]"
    local about_target="initializing destination|at destination|writing (blob|manifest)|uploading manifest"
    if [[ $said =~ $limited ]]; then finish RATE_LIMITED "$reason"
    elif [[ $said =~ "getting username and password" ]]; then
      finish TARGET_LOGIN 'the secret of RegistryAuthSecretArn holds no usable containers-auth.json'
    elif [[ $said =~ $denied|$missing && ( $1 == TARGET_LOGIN || $said =~ $about_target ) ]]; then
      finish TARGET_LOGIN "$reason"
    elif [[ $said =~ $missing ]]; then finish NOT_FOUND "$reason"
    elif [[ $said =~ $denied ]]; then finish DENIED "$reason"
    elif [[ $said =~ $network ]]; then finish UNREACHABLE "$reason"
    else finish "$1" "$reason"
    fi
  }

  # 3. The login, with two separate authfiles: ECR's password is never sent to a source, and a source's never to ECR.
  registry_auth=${REGISTRY_AUTH:-}
  printf '%s' "${registry_auth:-"{}"}" >"$work/source.json"
  password=$(
    unset AWS_SESSION_TOKEN AWS_PROFILE
    unset AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_CONTAINER_CREDENTIALS_FULL_URI
    AWS_ACCESS_KEY_ID=$access_key_id AWS_SECRET_ACCESS_KEY=$secret_access_key \
      aws ecr get-login-password --region "$region" </dev/null 2>"$work/errors"
  ) || explain TARGET_LOGIN
  printf '%s' "$password" |
    skopeo login --username AWS --password-stdin --authfile "$work/target.json" "$registry" \
      >/dev/null 2>"$work/errors" ||
    explain TARGET_LOGIN

  # 4. The copy: every platform, under the digests of the source.
  printf 'copying %s to %s\n' "$image" "$target"
  skopeo copy --all --preserve-digests --retry-times 3 \
    --src-authfile "$work/source.json" --dest-authfile "$work/target.json" \
    "docker://$image" "docker://$target" </dev/null 2>"$work/errors" || explain UNEXPLAINED
  finish COPIED 'the copy is in ECR'
)
COPY_EXIT_CODE=$?
if [[ -f $work/outcome ]]; then { read -r COPY_RESULT; read -r COPY_REASON; } <"$work/outcome"; fi
if [[ ${COPY_RESULT:-} == UNEXPLAINED ]]; then unset COPY_RESULT; else export COPY_RESULT; fi
export COPY_REASON COPY_EXIT_CODE
rm -rf "$work"
