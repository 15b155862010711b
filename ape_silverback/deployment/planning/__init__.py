"""How a plan is made, a file for each question: pure functions, which ``planner`` puts together."""
