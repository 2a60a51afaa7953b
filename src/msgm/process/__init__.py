"""Forward processes: alpha and sigma, training times, exact posteriors, and solvers of their ODE."""
