"""From what the project wants and what the cluster has to a plan, and from the plan to the result."""
