# SPDX-License-Identifier: Apache-2.0
"""One module per MTA; each defines a class Driver.  To add one, copy apus.py.

class Driver:
    modes = {"relay", "hold", "local", ...}   what it can be measured in
    def __init__(self, env)       env: benchlib.Env; private directory env.dir,
                                  env.port to listen on (127.0.0.1), env.sink_port
                                  to relay to, env.user
    def start(self, mode, connections=200)
                                  write the configuration under env.dir and start with
                                  env.spawn(argv), which puts the processes into the
                                  MTA's cgroup.  Must accept `connections` at a time.
    def stop(self)                stop cleanly; what is left is ended by pid
    def queued(self)              messages not yet delivered (0 = queue empty)

Modes:
    relay    everything to env.sink_domain goes to smtp-sink at 127.0.0.1:env.sink_port
    hold     accept durably, deliver nothing (hold queue, paused, or queue-only)
    defer    accept durably and record one failed / deferred attempt per message
    discard  accept durably, deliver to nowhere
    local    env.user@env.local_domain goes to ~env.user/Maildir/
"""
