// java Client.java PROXY-PORT TARGET CA-FILE [pin]: GET through a CONNECT, verified by CA-FILE; with `pin`, refused after the handshake
import java.io.FileInputStream;
import java.io.InputStream;
import java.net.Socket;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

class Client {
    public static void main(String[] words) throws Exception {
        KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null);
        try (InputStream file = new FileInputStream(words[2])) {
            roots.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(roots);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        String host = words[1].split(":")[0];
        int port = Integer.parseInt(words[1].split(":")[1]);
        Socket socket = new Socket("127.0.0.1", Integer.parseInt(words[0]));
        socket.getOutputStream().write(("CONNECT " + words[1] + " HTTP/1.1\r\nHost: " + words[1] + "\r\n\r\n").getBytes());
        for (int ends = 0; ends < 4; ) {
            int octet = socket.getInputStream().read();
            ends = octet == '\r' || octet == '\n' ? ends + 1 : 0;
        }
        try (SSLSocket secured = (SSLSocket) context.getSocketFactory().createSocket(socket, host, port, true)) {
            secured.startHandshake();
            if (words.length > 3) throw new Exception("the pin does not fit");
            secured.getOutputStream().write(("GET /close/5 HTTP/1.1\r\nHost: " + words[1] + "\r\n\r\n").getBytes());
            secured.getInputStream().transferTo(System.out);
        }
    }
}
