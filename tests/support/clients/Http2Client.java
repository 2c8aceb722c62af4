// A client of the proxy on java.net.http.HttpClient, which speaks HTTP/2 unless it is told otherwise.
//
// Arguments: the proxy's port, the URL of an HTTPS origin. The proxy's CA is in the default trust store. It prints what it got as JSON.

import java.net.InetSocketAddress;
import java.net.ProxySelector;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

public class Http2Client {
    public static void main(String[] arguments) throws Exception {
        InetSocketAddress proxy = new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0]));
        String origin = arguments[1];
        HttpClient client = HttpClient.newBuilder().proxy(ProxySelector.of(proxy)).connectTimeout(Duration.ofSeconds(20)).build();
        HttpRequest first = HttpRequest.newBuilder(URI.create(origin + "/bytes/100000")).build();
        HttpResponse<byte[]> response = client.send(first, BodyHandlers.ofByteArray());
        byte[] body = new byte[200000];
        HttpRequest posted = HttpRequest.newBuilder(URI.create(origin + "/x")).POST(BodyPublishers.ofByteArray(body)).build();
        String echoed = client.send(posted, BodyHandlers.ofString()).body();
        List<CompletableFuture<HttpResponse<byte[]>>> sent = new ArrayList<>();
        for (int i = 0; i < 40; i++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(origin + "/bytes/" + i * 100)).build();
            sent.add(client.sendAsync(request, BodyHandlers.ofByteArray()));
        }
        int parallel = 0;
        for (int i = 0; i < 40; i++) if (sent.get(i).get().body().length == i * 100) parallel++;
        System.out.printf(
            "{\"version\": \"%s\", \"get\": %d, \"posted\": %b, \"parallel\": %d}%n",
            response.version(), response.body().length, echoed.contains("\"body_length\": 200000"), parallel);
    }
}
