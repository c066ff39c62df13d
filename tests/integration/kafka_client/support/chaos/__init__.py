"""What the scenarios on real clusters share: the cluster, the load, the books."""
