//! Tenant policy: YAML to a checked model to a pure decision.
