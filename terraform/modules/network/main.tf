# The network that a cluster lives in.
#
# Owns: VPC, a private subnet per zone, the way to S3 and to secrets without the internet, the private
# DNS zone, and, only where asked for, public subnets and NAT. Members have no public address.
# Not here: who may talk to whom (module security).

locals {
  zones = { for i, zone in sort(var.zones) : zone => i }
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_hostnames = true
  enable_dns_support   = true
  tags                 = { Name = var.cluster }
}

# Whatever is started without a security group of its own reaches nothing.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.cluster}-closed" }
}

resource "aws_subnet" "private" {
  for_each = local.zones

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.cidr, 4, each.value)
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.cluster}-private-${each.key}" }
}

resource "aws_route_table" "private" {
  for_each = local.zones

  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.cluster}-private-${each.key}" }
}

resource "aws_route_table_association" "private" {
  for_each = local.zones

  subnet_id      = aws_subnet.private[each.key].id
  route_table_id = aws_route_table.private[each.key].id
}

# The store's traffic stays inside, and costs nothing but requests.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [for table in aws_route_table.private : table.id]
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyBucketsOfTheCluster"
      Effect    = "Allow"
      Principal = "*"
      Action    = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
      Resource  = flatten([for arn in var.bucket_arns : [arn, "${arn}/*"]])
    }]
  })
  tags = { Name = "${var.cluster}-s3" }
}

resource "aws_security_group" "endpoints" {
  name        = "${var.cluster}-endpoints"
  description = "Endpoints of AWS services, for this VPC"
  vpc_id      = aws_vpc.this.id
  tags        = { Name = "${var.cluster}-endpoints" }
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  security_group_id = aws_security_group.endpoints.id
  description       = "HTTPS from members"
  cidr_ipv4         = var.cidr
  from_port         = 443
  to_port           = 443
  ip_protocol       = "tcp"
}

resource "aws_vpc_endpoint" "interface" {
  for_each = toset(concat(["secretsmanager"], var.more_endpoints))

  vpc_id              = aws_vpc.this.id
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = [for subnet in aws_subnet.private : subnet.id]
  security_group_ids  = [aws_security_group.endpoints.id]
  tags                = { Name = "${var.cluster}-${each.key}" }
}

# Members are found by name, so a replaced one needs no other configuration.
resource "aws_route53_zone" "private" {
  name    = var.domain
  comment = "Members of the Tako cluster ${var.cluster}"

  vpc {
    vpc_id = aws_vpc.this.id
  }
}
