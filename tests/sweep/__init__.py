"""The fault sweeps: every call and every durable step, with every fault, and a fresh process that judges."""
