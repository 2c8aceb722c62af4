// Asks for a URL through a proxy and refuses the certificate: `java Refuse.java PROXY URL CA HOW`.
import java.net.*;
import java.net.http.*;
import java.security.cert.*;
import javax.net.ssl.*;

public class Refuse {
    static final class Pinned extends X509ExtendedTrustManager {
        private static void refuse() throws CertificateException { throw new CertificateException("another key is pinned"); }
        public void checkClientTrusted(X509Certificate[] c, String a) {}
        public void checkClientTrusted(X509Certificate[] c, String a, Socket s) {}
        public void checkClientTrusted(X509Certificate[] c, String a, SSLEngine e) {}
        public void checkServerTrusted(X509Certificate[] c, String a) throws CertificateException { refuse(); }
        public void checkServerTrusted(X509Certificate[] c, String a, Socket s) throws CertificateException { refuse(); }
        public void checkServerTrusted(X509Certificate[] c, String a, SSLEngine e) throws CertificateException { refuse(); }
        public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
    }

    public static void main(String[] arguments) throws Exception {
        URI proxy = URI.create(arguments[0]), target = URI.create(arguments[1]);
        InetSocketAddress address = new InetSocketAddress(proxy.getHost(), proxy.getPort());
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, arguments[3].endsWith("pinned") ? new TrustManager[] {new Pinned()} : null, null);
        try {
            if (arguments[3].startsWith("url")) {
                URLConnection connection = target.toURL().openConnection(new Proxy(Proxy.Type.HTTP, address));
                ((HttpsURLConnection) connection).setSSLSocketFactory(context.getSocketFactory());
                connection.getInputStream().close();
            } else {
                HttpClient client = HttpClient.newBuilder().sslContext(context).proxy(ProxySelector.of(address)).build();
                client.send(HttpRequest.newBuilder(target).build(), HttpResponse.BodyHandlers.discarding());
            }
            System.exit(1);
        } catch (SSLException refused) {
            System.out.println(refused);
        }
    }
}
