"""What the demo's jobs run: each says in a file that it starts, lives and ends (audit/words.py)."""

from __future__ import annotations

BEAT_S = 0.1

SCRIPT = f"""
ledger=$1; beats=$2
tell() {{
  who="$ETCSCHED_JOB $ETCSCHED_RUN $ETCSCHED_TOKEN"
  echo "$1 $who $(date +%s.%N) $ETCSCHED_ATTEMPT $ETCSCHED_AGENT" >> "$ledger"
}}
tell start
while [ "$beats" -gt 0 ]; do sleep {BEAT_S}; tell beat; beats=$((beats - 1)); done
tell end
"""
