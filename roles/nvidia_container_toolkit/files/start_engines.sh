#!/bin/sh
# Written by deployctl. start_engines.sh [SECONDS]: starts the engines that Docker wanted to start and could not.
#
# Docker tries once, when it comes up, and leaves it at that. It cannot hand out a GPU then when the device is not declared
# yet, and before 28.2 it never can: it learned of CDI devices after it had started the containers (moby/moby#49989).
# Such a container is `exited`, and the error of that start stands in its state: a start that succeeds takes the error
# away, and a container that somebody stops has none, so what was stopped by hand stays so. What a change has set aside
# ends in -previous.
failed() {
  ids=$(docker ps --all --quiet --no-trunc --filter label=deployctl.role=vllm) || return 1
  [ -n "$ids" ] || return 0
  # One that vanishes meanwhile is an error; the others are told all the same, and next time it is not asked for.
  # shellcheck disable=SC2086
  docker inspect --format '{{.Name}} {{.State.Status}} {{.HostConfig.RestartPolicy.Name}} {{json .State.Error}}' $ids |
    while read -r name status policy error; do
      case "$status $policy $error" in
        *' ""') ;;
        'exited always '* | 'exited unless-stopped '* | 'exited on-failure'*)
          case $name in *-previous) ;; *) echo "${name#/}" ;; esac ;;
      esac
    done
}

end=$(($(date +%s) + ${1:-300}))
while :; do
  if names=$(failed); then
    [ -n "$names" ] || exit 0
    # shellcheck disable=SC2086
    docker start $names && exit 0
  fi
  [ "$(date +%s)" -lt "$end" ] || exit 1
  sleep 5
done
