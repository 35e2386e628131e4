#!/usr/bin/env bash
# Pictures of a report in light and in dark, to be looked at: tests/reports/screenshot.sh output/report.html FOLDER
set -euo pipefail
page=$(realpath "$1")
folder=$2
mkdir -p "$folder"
shoot() {
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1200,3000 "${@:2}" \
        --user-data-dir="$(mktemp -d)" --screenshot="$folder/$1.png" "file://$page" >/dev/null 2>&1
}
shoot light
shoot dark --enable-features=WebContentsForceDark:inversion_method/none --force-dark-mode --blink-settings=preferredColorScheme=0
ls -l "$folder"
