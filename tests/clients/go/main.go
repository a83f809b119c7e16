// One conversation by gomemcache, which speaks the text protocol.
package main

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/bradfitz/gomemcache/memcache"
)

func must(what string, err error) {
	if err != nil {
		panic(what + ": " + err.Error())
	}
}

func is(what string, got, wanted error) {
	if !errors.Is(got, wanted) {
		panic(fmt.Sprintf("%s: %v, not %v", what, got, wanted))
	}
}

func main() {
	client := memcache.New(os.Args[1] + ":" + os.Args[2])
	client.Timeout = 10_000_000_000
	must("set", client.Set(&memcache.Item{Key: "go", Value: []byte("1"), Flags: 7}))
	item, err := client.Get("go")
	must("get", err)
	if string(item.Value) != "1" || item.Flags != 7 {
		panic(item)
	}
	is("add", client.Add(&memcache.Item{Key: "go", Value: []byte("2")}), memcache.ErrNotStored)
	is("replace", client.Replace(&memcache.Item{Key: "go-none"}), memcache.ErrNotStored)
	item.Value = []byte("5")
	must("cas", client.CompareAndSwap(item))
	is("second cas", client.CompareAndSwap(item), memcache.ErrCASConflict)
	_, err = client.Increment("go-none", 1)
	is("increment", err, memcache.ErrCacheMiss)
	var clients sync.WaitGroup
	for range 4 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for range 25 {
				_, err := client.Increment("go", 1)
				must("increment", err)
			}
		}()
	}
	clients.Wait()
	item, err = client.Get("go")
	must("get", err)
	if string(item.Value) != "105" {
		panic("it counts " + string(item.Value))
	}
	keys := []string{"go-none"}
	for n := range 100 {
		keys = append(keys, fmt.Sprint("go", n))
		must("set", client.Set(&memcache.Item{Key: keys[n+1], Value: []byte(keys[n+1])}))
	}
	items, err := client.GetMulti(keys)
	must("get of many", err)
	if len(items) != 100 || string(items["go42"].Value) != "go42" {
		panic(items)
	}
	must("touch", client.Touch("go", 100))
	must("append", client.Append(&memcache.Item{Key: "go", Value: []byte("x")}))
	must("delete", client.Delete("go"))
	is("second delete", client.Delete("go"), memcache.ErrCacheMiss)
	must("ping", client.Ping())
	fmt.Println("ok")
}
