# What instances are started with, and what an operator needs.

output "profiles" {
  description = "Instance profiles by role."
  # Through the policies: an instance that starts before its policy is there only waits for it.
  value = { for role, profile in aws_iam_instance_profile.this : role => profile.name }
}

output "policies" {
  description = "The policies by role, as JSON; the node's is also what `tako ctl snapshot` and `restore` need of the store."
  value       = { for role, policy in local.policies : role => jsonencode(policy) }
}
