"""Worker processes and the replicas in them: frames, the child's main loop, the gateway's handle."""
