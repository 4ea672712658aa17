"""Which experts are live: generations in SQL, and replicas that reconcile to the newest one."""
