# What the instance types have that Tako looks at.
#
# Owns: memory, NVMe instance storage, architecture and an on-demand price by the hour (us-east-1,
# Linux; for the estimate only, look up your own). Types with one disk: several would have to be
# joined. Others come in by `more_instance_types`.

locals {
  instance_types = {
    "c6gd.medium"  = { architecture = "arm64", vcpus = 1, memory_gib = 2, disk_gb = 59, dollars_per_hour = 0.0384 }
    "c6gd.large"   = { architecture = "arm64", vcpus = 2, memory_gib = 4, disk_gb = 118, dollars_per_hour = 0.0768 }
    "c7gd.medium"  = { architecture = "arm64", vcpus = 1, memory_gib = 2, disk_gb = 59, dollars_per_hour = 0.0454 }
    "c7gd.large"   = { architecture = "arm64", vcpus = 2, memory_gib = 4, disk_gb = 118, dollars_per_hour = 0.0907 }
    "c7gd.xlarge"  = { architecture = "arm64", vcpus = 4, memory_gib = 8, disk_gb = 237, dollars_per_hour = 0.1814 }
    "m6gd.medium"  = { architecture = "arm64", vcpus = 1, memory_gib = 4, disk_gb = 59, dollars_per_hour = 0.0452 }
    "m6gd.large"   = { architecture = "arm64", vcpus = 2, memory_gib = 8, disk_gb = 118, dollars_per_hour = 0.0904 }
    "m6gd.xlarge"  = { architecture = "arm64", vcpus = 4, memory_gib = 16, disk_gb = 237, dollars_per_hour = 0.1808 }
    "m6gd.2xlarge" = { architecture = "arm64", vcpus = 8, memory_gib = 32, disk_gb = 474, dollars_per_hour = 0.3616 }
    "m7gd.large"   = { architecture = "arm64", vcpus = 2, memory_gib = 8, disk_gb = 118, dollars_per_hour = 0.1068 }
    "m7gd.xlarge"  = { architecture = "arm64", vcpus = 4, memory_gib = 16, disk_gb = 237, dollars_per_hour = 0.2135 }
    "i4g.large"    = { architecture = "arm64", vcpus = 2, memory_gib = 16, disk_gb = 468, dollars_per_hour = 0.1544 }
    "i4g.xlarge"   = { architecture = "arm64", vcpus = 4, memory_gib = 32, disk_gb = 937, dollars_per_hour = 0.3089 }
    "i4g.2xlarge"  = { architecture = "arm64", vcpus = 8, memory_gib = 64, disk_gb = 1875, dollars_per_hour = 0.6177 }
    "im4gn.large"  = { architecture = "arm64", vcpus = 2, memory_gib = 8, disk_gb = 937, dollars_per_hour = 0.1819 }
    "im4gn.xlarge" = { architecture = "arm64", vcpus = 4, memory_gib = 16, disk_gb = 1875, dollars_per_hour = 0.3639 }
    "c6id.large"   = { architecture = "x86_64", vcpus = 2, memory_gib = 4, disk_gb = 118, dollars_per_hour = 0.1008 }
    "c6id.xlarge"  = { architecture = "x86_64", vcpus = 4, memory_gib = 8, disk_gb = 237, dollars_per_hour = 0.2016 }
    "m6id.large"   = { architecture = "x86_64", vcpus = 2, memory_gib = 8, disk_gb = 118, dollars_per_hour = 0.1187 }
    "m6id.xlarge"  = { architecture = "x86_64", vcpus = 4, memory_gib = 16, disk_gb = 237, dollars_per_hour = 0.2373 }
    "m6id.2xlarge" = { architecture = "x86_64", vcpus = 8, memory_gib = 32, disk_gb = 474, dollars_per_hour = 0.4746 }
    "i4i.large"    = { architecture = "x86_64", vcpus = 2, memory_gib = 16, disk_gb = 468, dollars_per_hour = 0.172 }
    "i4i.xlarge"   = { architecture = "x86_64", vcpus = 4, memory_gib = 32, disk_gb = 937, dollars_per_hour = 0.343 }
    "i4i.2xlarge"  = { architecture = "x86_64", vcpus = 8, memory_gib = 64, disk_gb = 1875, dollars_per_hour = 0.686 }
    "i4i.4xlarge"  = { architecture = "x86_64", vcpus = 16, memory_gib = 128, disk_gb = 3750, dollars_per_hour = 1.373 }
  }
}
