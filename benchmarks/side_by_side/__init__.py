"""Two trainings on one machine: what each keeps of the speed that it has alone."""
