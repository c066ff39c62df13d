// Net/http with franz-go: what one writes in Go. The same two ways in as the peers in Python, and the same promise: an
// answer leaves after the acknowledgement of every in-sync replica. Arguments: PORT BOOTSTRAP_SERVERS TOPIC.
package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"

	json "github.com/goccy/go-json"
	"github.com/twmb/franz-go/pkg/kgo"
)

type event struct {
	AppID    string `json:"app_id"`
	Event    string `json:"event"`
	Identity string `json:"identity"`
}

type call struct {
	AppID  string            `json:"app_id"`
	Events []json.RawMessage `json:"events"`
}

func main() {
	port, servers, topic := os.Args[1], os.Args[2], os.Args[3]
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(servers, ",")...),
		kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
	)
	if err != nil {
		log.Fatal(err)
	}
	if err := client.ProduceSync(context.Background(), kgo.SliceRecord([]byte("warm"))).FirstErr(); err != nil {
		log.Fatal(err)
	}
	produce := func(answer http.ResponseWriter, values [][]byte) {
		var waiting sync.WaitGroup
		var failed error
		var guard sync.Mutex
		waiting.Add(len(values))
		for _, value := range values {
			client.Produce(context.Background(), kgo.SliceRecord(value), func(_ *kgo.Record, err error) {
				if err != nil {
					guard.Lock()
					failed = err
					guard.Unlock()
				}
				waiting.Done()
			})
		}
		waiting.Wait()
		if failed != nil {
			http.Error(answer, failed.Error(), http.StatusServiceUnavailable)
			return
		}
		answer.Header().Set("Content-Type", "application/json")
		answer.Write([]byte("{}"))
	}
	http.HandleFunc("POST /api/track", func(answer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var one event
		if err != nil || json.Unmarshal(body, &one) != nil || one.Event == "" {
			http.Error(answer, "not an event", http.StatusBadRequest)
			return
		}
		produce(answer, [][]byte{body})
	})
	http.HandleFunc("POST /bulk", func(answer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var many call
		if err != nil || json.Unmarshal(body, &many) != nil {
			http.Error(answer, "not events", http.StatusBadRequest)
			return
		}
		values := make([][]byte, len(many.Events))
		for place, value := range many.Events {
			values[place] = value
		}
		produce(answer, values)
	})
	log.Println("listening")
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}
