"""What runs the workloads against every comparator, and tells what came of it."""
