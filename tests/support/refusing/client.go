// client PROXY-PORT TARGET CA-FILE [pin]: GET through a CONNECT, verified by CA-FILE; with `pin`, by a pin that never fits
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
)

func main() {
	if err := talk(os.Args[1], os.Args[2], os.Args[3], len(os.Args) > 4); err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
}

func talk(port, target, file string, pin bool) error {
	pem, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: roots, ServerName: strings.Split(target, ":")[0]}
	if pin {
		config.VerifyConnection = func(tls.ConnectionState) error { return errors.New("the pin does not fit") }
	}
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	defer conn.Close()
	io.WriteString(conn, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
	reader := bufio.NewReader(conn)
	for line := "?"; line != "\r\n"; {
		if line, err = reader.ReadString('\n'); err != nil {
			return err
		}
	}
	secured := tls.Client(conn, config)
	if _, err := io.WriteString(secured, "GET /close/5 HTTP/1.1\r\nHost: "+target+"\r\n\r\n"); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, secured)
	return err
}
