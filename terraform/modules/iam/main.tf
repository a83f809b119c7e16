# What each role may do in AWS: what its process needs, and nothing else.
#
# Owns: a role and an instance profile for each kind of instance, with one policy each.
#   node         reads, writes, deletes and lists below the store's prefix; reads tls and tokens
#   coordinator  reads and lists there; writes configurations, backups and the manifests that
#                checkpoints of backups stand in; deletes backups; reads tls
#   proxy        nothing of the store; reads tls and tokens
#   collector    nothing of the store; reads tls and its token; finds proxies
# All read the one object that their release is. Not here: keys of KMS and their own policies.

locals {
  root    = "${var.bucket_arn}/${var.prefix}"
  release = { for name, url in var.release_urls : name => "arn:aws:s3:::${trimprefix(url, "s3://")}" }
  secrets = {
    node        = [var.secret_arns.tls, var.secret_arns.tokens]
    coordinator = [var.secret_arns.tls]
    proxy       = [var.secret_arns.tls, var.secret_arns.tokens]
    collector   = [var.secret_arns.tls, var.secret_arns.scrape_token]
  }

  list = {
    Sid       = "ListStore"
    Effect    = "Allow"
    Action    = ["s3:ListBucket"]
    Resource  = [var.bucket_arn]
    Condition = { StringLike = { "s3:prefix" = [var.prefix, "${var.prefix}/*"] } }
  }
  store = {
    node = [
      local.list,
      {
        Sid      = "UseStore"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
        Resource = ["${local.root}/*"]
      },
    ]
    coordinator = [
      local.list,
      {
        Sid      = "ReadStore"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = ["${local.root}/*"]
      },
      {
        Sid    = "WriteConfigurationsAndBackups"
        Effect = "Allow"
        Action = ["s3:PutObject"]
        Resource = [
          "${local.root}/cluster",
          "${local.root}/config/*",
          "${local.root}/backups/*",
          "${local.root}/partitions/*/db/manifest/*",
        ]
      },
      {
        Sid      = "PruneBackups"
        Effect   = "Allow"
        Action   = ["s3:DeleteObject"]
        Resource = ["${local.root}/backups/*"]
      },
    ]
    proxy = []
    # Describing instances cannot be narrowed to some of them.
    collector = [{
      Sid      = "FindProxies"
      Effect   = "Allow"
      Action   = ["ec2:DescribeInstances"]
      Resource = ["*"]
      Condition = {
        StringEquals = { "ec2:Region" = var.region }
      }
    }]
  }

  roles = var.collector ? ["node", "coordinator", "proxy", "collector"] : ["node", "coordinator", "proxy"]
  policies = {
    for role in local.roles : role => {
      Version = "2012-10-17"
      Statement = concat(
        local.store[role],
        [
          {
            Sid      = "ReadRelease"
            Effect   = "Allow"
            Action   = ["s3:GetObject"]
            Resource = [role == "collector" ? local.release.collector : local.release.tako]
          },
          {
            Sid      = "ReadSecrets"
            Effect   = "Allow"
            Action   = ["secretsmanager:GetSecretValue"]
            Resource = local.secrets[role]
          },
        ],
        length(var.kms_key_arns) == 0 ? [] : [{
          Sid      = "UseKeys"
          Effect   = "Allow"
          Action   = contains(["node", "coordinator"], role) ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"]
          Resource = var.kms_key_arns
        }],
      )
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = toset(local.roles)

  name                 = "${var.cluster}-${each.key}"
  description          = "Tako cluster ${var.cluster}: ${each.key}"
  permissions_boundary = var.permissions_boundary
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  for_each = local.policies

  name   = "tako"
  role   = aws_iam_role.this[each.key].id
  policy = jsonencode(each.value)
}

resource "aws_iam_role_policy_attachment" "more" {
  for_each = { for pair in setproduct(local.roles, var.more_policy_arns) : join(" ", pair) => pair }

  role       = aws_iam_role.this[each.value[0]].name
  policy_arn = each.value[1]
}

resource "aws_iam_instance_profile" "this" {
  for_each = aws_iam_role.this

  name = each.value.name
  role = each.value.name
}
