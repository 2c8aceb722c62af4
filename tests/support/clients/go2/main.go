// A client of the proxy on Go's net/http, which speaks HTTP/2.
//
// Arguments: the proxy's URL, the file of its CA, the URL of an HTTPS origin. It prints what it got as JSON.
package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
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

func main() {
	proxy, err := url.Parse(os.Args[1])
	check(err)
	pem, err := os.ReadFile(os.Args[2])
	check(err)
	origin := os.Args[3]
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := &http.Client{
		Timeout: 20 * time.Second,
		Transport: &http.Transport{
			Proxy:             http.ProxyURL(proxy),
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			ForceAttemptHTTP2: true,
		},
	}
	ask := func(request *http.Request) (*http.Response, []byte) {
		response, err := client.Do(request)
		check(err)
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		check(err)
		return response, data
	}
	request := func(method, path string, body io.Reader) *http.Request {
		made, err := http.NewRequest(method, origin+path, body)
		check(err)
		return made
	}
	got := map[string]any{}

	response, data := ask(request("GET", "/bytes/100000", nil))
	got["get"], got["version"] = digest(data), response.Proto
	response, data = ask(request("GET", "/chunked/70000/9?trailers", nil))
	got["chunked"], got["trailer"] = digest(data), response.Trailer.Get("X-Sha256")

	body := make([]byte, 200000)
	for i := range body {
		body[i] = byte(i % 251)
	}
	var echoed struct {
		Digest   string      `json:"body_sha256"`
		Trailers [][2]string `json:"trailers"`
	}
	_, data = ask(request("POST", "/x", bytes.NewReader(body)))
	check(json.Unmarshal(data, &echoed))
	got["posted"] = echoed.Digest
	// of unknown length, with a trailer
	trailed := request("POST", "/x", io.MultiReader(bytes.NewReader(body)))
	trailed.Trailer = http.Header{"X-Last": {"yes"}}
	_, data = ask(trailed)
	check(json.Unmarshal(data, &echoed))
	got["streamed"], got["trailed"] = echoed.Digest, len(echoed.Trailers) == 1

	early := ""
	hinted := request("GET", "/interim", nil)
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		if code == 103 {
			early = header.Get("Link")
		}
		return nil
	}}
	ask(hinted.WithContext(httptrace.WithClientTrace(hinted.Context(), trace)))
	got["early"] = early

	var parallel atomic.Int32
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			if _, data := ask(request("GET", fmt.Sprintf("/bytes/%d", i*100), nil)); len(data) == i*100 {
				parallel.Add(1)
			}
		})
	}
	group.Wait()
	got["parallel"] = parallel.Load()
	check(json.NewEncoder(os.Stdout).Encode(got))
}
