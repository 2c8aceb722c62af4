// Shakes hands through a proxy and refuses the certificate: `refuse PROXY URL CA HOW`. Without net/http, which takes long to compile.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	proxy := strings.TrimPrefix(os.Args[1], "http://")
	target := strings.TrimSuffix(strings.TrimPrefix(os.Args[2], "https://"), "/")
	host, _, _ := net.SplitHostPort(target)
	connection, err := net.Dial("tcp", proxy)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(connection, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	reader := bufio.NewReader(connection)
	for line := ""; line != "\r\n"; {
		if line, err = reader.ReadString('\n'); err != nil {
			panic(err)
		}
	}
	config := &tls.Config{ServerName: host}
	if os.Args[4] == "pinned" {
		pem, _ := os.ReadFile(os.Args[3])
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(pem)
		config.VerifyConnection = func(tls.ConnectionState) error { return errors.New("another key is pinned") }
	}
	err = tls.Client(connection, config).Handshake()
	fmt.Println(err)
	if err == nil {
		os.Exit(1)
	}
}
