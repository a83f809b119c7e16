# Places for secrets, without the secrets.
#
# Owns: empty entries of Secrets Manager, or none where ARNs are given. Their values are put by the
# operator (docs/terraform.md): what Terraform writes, it keeps in its state.
#   tls           {"ca": …, "cert": …, "key": …}, PEM; the certificate is for *.<cluster>.internal
#   tokens        tokens of clients, YAML, as --tokens reads it
#   scrape_token  with a collector: one token with the scope `monitor`, by itself

locals {
  entries = {
    for name, text in {
      tls          = "Certificate, key and CA of the cluster"
      tokens       = "Tokens of clients"
      scrape_token = "The collector's token"
    } : name => text
    if var.given[name] == null && (name != "scrape_token" || var.collector)
  }
}

resource "aws_secretsmanager_secret" "this" {
  for_each = local.entries

  name                    = "tako/${var.cluster}/${replace(each.key, "_", "-")}"
  description             = "${each.value} ${var.cluster} (Tako)"
  kms_key_id              = var.kms_key_arn
  recovery_window_in_days = 7
}

output "arns" {
  description = "ARNs: tls, tokens, scrape_token (null without a collector)."
  value = {
    for name in ["tls", "tokens", "scrape_token"] :
    name => var.given[name] != null ? var.given[name] : try(aws_secretsmanager_secret.this[name].arn, null)
  }
}
