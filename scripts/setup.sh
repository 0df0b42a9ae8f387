#!/usr/bin/env bash
# Create .venv and install this package into it, once; later calls return at once. Where nothing can draw a
# frame with OpenGL, root on a machine with apt gets the libraries too. The other scripts call it, and it can be
# run by itself: bash scripts/setup.sh, or bash scripts/setup.sh tests for what the tests need as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A Python that runs, is 3.11 or 3.12 and can make virtual environments. (A pyenv shim may exist
# without the version behind it.)
find_python() {
  local candidate version seen=""
  for candidate in python3.12 python3.11 python3 python; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    seen="$seen $candidate is $version;"
    case $version in 3.11 | 3.12) ;; *) continue ;; esac
    if ! "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
      seen="$seen it lacks venv (on Debian and Ubuntu: apt-get install python$version-venv);"
      continue
    fi
    echo "$candidate"
    return
  done
  echo "error: this package needs Python 3.11 or 3.12 (found:${seen:- none}). Install one of them," \
    "or put it on the PATH, and run this again." >&2
  return 2
}

# Whether a frame can be drawn at all, whatever back end and device the user chose.
draws() {
  env -u MUJOCO_GL -u PYOPENGL_PLATFORM -u MUJOCO_EGL_DEVICE_ID -u SMG_GL_RENDERER \
    .venv/bin/python -c 'from common import gl; gl.select_backend()' >/dev/null 2>&1
}

opengl_libraries() {
  local line
  { PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true; } | while read -r line; do
    if [[ $line =~ lib(EGL|GL|OSMesa) ]]; then echo "$line"; fi
  done
}

# The outcome holds for as long as the machine has the same OpenGL libraries, and .venv may move to another.
ensure_opengl() {
  local libraries
  libraries=$(opengl_libraries)
  if [ -e .venv/.draws ] && [ "$(cat .venv/.draws)" = "$libraries" ]; then return; fi
  if ! draws; then
    if [ "$EUID" != 0 ] || ! command -v apt-get >/dev/null; then return; fi # training says what to install
    echo "OpenGL: nothing can draw a frame; installing libegl1 libgl1-mesa-dri libosmesa6 with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    # Another apt-get may be at work.
    if ! { apt-get update -qq && apt-get -o DPkg::Lock::Timeout=600 install -y -qq \
      libegl1 libgl1-mesa-dri libosmesa6; } >/dev/null || ! draws; then
      echo "OpenGL: still nothing can draw a frame; .venv/bin/smg doctor says why" >&2
      return
    fi
    libraries=$(opengl_libraries)
  fi
  printf '%s\n' "$libraries" >.venv/.draws
}

# Two scripts started at once must not install into the same folder.
if command -v flock >/dev/null; then
  exec 9>.venv.lock
  flock 9
fi

case ${1:-} in
  "") package=. stamps=(.venv/.installed .venv/.installed-tests) ;;
  tests) package='.[dev]' stamps=(.venv/.installed-tests) ;;
  *) echo "usage: bash scripts/setup.sh [tests]" >&2; exit 2 ;;
esac
# The editable installation lists the packages that there were.
inputs="$PWD"$'\n'"$(cat setup.py constraints.txt)"$'\n'"$(echo */__init__.py)"
for stamp in "${stamps[@]}"; do
  if [ "$(cat "$stamp" 2>/dev/null)" = "$inputs" ] && .venv/bin/python -c '' 2>/dev/null; then
    ensure_opengl
    exit 0
  fi
done

rm -f .venv/.installed*
# An interrupted creation, or a Python that has since been removed, leaves a .venv that cannot install.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  echo "Creating .venv with $("$python" --version) ($python)"
  rm -rf .venv
  "$python" -m venv .venv
fi
echo "Installing the package into .venv (first use; takes some minutes)"
if ! .venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e "$package"; then
  echo "error: the installation failed (see above); run this again to go on where it stopped." >&2
  exit 1
fi
printf '%s\n' "$inputs" >.venv/stamp.new
mv .venv/stamp.new "${stamps[0]}"
ensure_opengl
