// A client of the proxy on Go's net/http, and one that writes requests without waiting for their answers.
//
// Arguments: the proxy's URL, the file of its CA, the URL of an HTTPS origin, that of an HTTP origin.
// It prints what it got as JSON.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func body() []byte {
	data := make([]byte, 200000)
	for i := range data {
		data[i] = byte(i % 251)
	}
	return data
}

type client struct {
	*http.Client
	roots  *x509.CertPool
	proxy  *url.URL
	origin string
}

func (c *client) do(request *http.Request) (*http.Response, []byte) {
	response, err := c.Do(request)
	check(err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	check(err)
	return response, data
}

func (c *client) ask(method, path string, content io.Reader) (*http.Response, []byte) {
	request, err := http.NewRequest(method, c.origin+path, content)
	check(err)
	return c.do(request)
}

func field(data []byte, name string) string {
	var description map[string]any
	check(json.Unmarshal(data, &description))
	text, _ := description[name].(string)
	return text
}

func main() {
	proxy, err := url.Parse(os.Args[1])
	check(err)
	pem, err := os.ReadFile(os.Args[2])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{
		Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}, ExpectContinueTimeout: time.Minute,
	}
	c := &client{&http.Client{Transport: transport, Timeout: 20 * time.Second}, roots, proxy, os.Args[3]}
	got := map[string]any{}

	_, data := c.ask("GET", "/bytes/100000", nil)
	got["get"] = digest(data)

	response, data := c.ask("GET", "/chunked/70000/9?trailers", nil)
	got["chunked"], got["trailer"] = digest(data), response.Trailer.Get("X-Sha256")

	_, data = c.ask("POST", "/echo", bytes.NewReader(body()))
	got["posted"] = field(data, "body_sha256")

	// a reader of unknown length is sent chunked
	_, data = c.ask("POST", "/echo", io.MultiReader(bytes.NewReader(body())))
	got["streamed"] = field(data, "body_sha256")

	request, err := http.NewRequest("PUT", c.origin+"/echo", io.MultiReader(bytes.NewReader(body())))
	check(err)
	request.Trailer = http.Header{"X-End": {"yes"}}
	_, data = c.do(request)
	got["trailed"] = strings.Contains(string(data), `"trailers": [["X-End", "yes"]]`)

	response, _ = c.ask("HEAD", "/bytes/5000", nil)
	got["head"] = response.ContentLength

	statuses := []int{}
	for _, status := range []string{"204", "304", "404", "500"} {
		response, _ = c.ask("GET", "/status/"+status, nil)
		statuses = append(statuses, response.StatusCode)
	}
	got["statuses"] = statuses

	early, continued := "", false
	trace := &httptrace.ClientTrace{
		Got100Continue: func() { continued = true },
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			if code == 103 {
				early = header.Get("Link")
			}
			return nil
		},
	}
	request, err = http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "GET", c.origin+"/interim", nil)
	check(err)
	c.do(request)
	got["early"] = early
	request, err = http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "PUT", c.origin+"/echo", bytes.NewReader(body()))
	check(err)
	request.Header.Set("Expect", "100-continue")
	_, data = c.do(request)
	got["expected"], got["continued"] = field(data, "body_sha256"), continued

	got["parallel"] = c.parallel()
	got["pipelined"] = c.pipelined()

	response, err = c.Get(os.Args[4] + "/bytes/9")
	check(err)
	data, err = io.ReadAll(response.Body)
	check(err)
	got["plain"] = digest(data)
	check(json.NewEncoder(os.Stdout).Encode(got))
}

// parallel makes 40 requests from 8 goroutines and tells how many answers had the right length.
func (c *client) parallel() int {
	var group sync.WaitGroup
	var lock sync.Mutex
	right := 0
	for worker := 0; worker < 8; worker++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < 5; i++ {
				count := 1000*worker + i
				_, data := c.ask("GET", fmt.Sprintf("/bytes/%d", count), nil)
				lock.Lock()
				if len(data) == count {
					right++
				}
				lock.Unlock()
			}
		}()
	}
	group.Wait()
	return right
}

// pipelined writes 100 requests while it reads their answers, and tells how many came in order.
func (c *client) pipelined() int {
	target := strings.TrimPrefix(c.origin, "https://")
	raw, err := net.Dial("tcp", c.proxy.Host)
	check(err)
	defer raw.Close()
	fmt.Fprintf(raw, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	// nothing follows the answer before we have spoken
	answer, err := http.ReadResponse(bufio.NewReader(raw), &http.Request{Method: "CONNECT"})
	check(err)
	if answer.StatusCode != 200 {
		check(fmt.Errorf("CONNECT was answered %s", answer.Status))
	}
	secure := tls.Client(raw, &tls.Config{RootCAs: c.roots, ServerName: strings.Split(target, ":")[0]})
	go func() {
		for i := 0; i < 100; i++ {
			fmt.Fprintf(secure, "GET /bytes/%d HTTP/1.1\r\nHost: %s\r\n\r\n", i*37, target)
		}
	}()
	reader := bufio.NewReader(secure)
	for i := 0; i < 100; i++ {
		response, err := http.ReadResponse(reader, nil)
		check(err)
		data, err := io.ReadAll(response.Body)
		check(err)
		if len(data) != i*37 {
			return i
		}
	}
	return 100
}
