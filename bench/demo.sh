# What the user's own agents used, per project; the bundled sample logs where no client has written any.
events=$(mktemp)
trap 'rm -f "$events"' EXIT
tok-read > "$events" 2> /dev/null || true
if [ -s "$events" ]; then
    echo "What your agents used, from the logs on this machine:"
else
    echo "No agent on this machine has written logs yet. These are the sample logs in docs/examples/home:"
    tok-read --root docs/examples/home > "$events"
fi
tok-cost --by project --table "$events"
