"""How it is asked and measured: profiles, plan, workers, gate, clock, statistics, reports."""
