"""Real devices: a server behind a gate, enrolment, and what runs on a device."""
