module tako/clients

go 1.24

require github.com/bradfitz/gomemcache v0.0.0-20250403215159-8d39553ac7cf
