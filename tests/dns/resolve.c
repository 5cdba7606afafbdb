/* Looks names up as any program does, and prints what it got, a line each:
 * NAME ADDRESS... in the order of the bytes, or NAME none, or NAME error TEXT. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 64

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

int main(int count, char **names) {
    for (int index = 1; index < count; index++) {
        struct addrinfo hints, *found = NULL;
        char texts[MOST][INET6_ADDRSTRLEN];
        int used = 0;
        memset(&hints, 0, sizeof hints);
        hints.ai_family = AF_UNSPEC;
        hints.ai_socktype = SOCK_STREAM;
        printf("%s", names[index]);
        int code = getaddrinfo(names[index], NULL, &hints, &found);
        if (code == EAI_NONAME || code == -5 /* EAI_NODATA */) {
            printf(" none");
        } else if (code != 0) {
            printf(" error %s", gai_strerror(code));
        }
        for (struct addrinfo *at = found; at && used < MOST; at = at->ai_next) {
            const void *address = at->ai_family == AF_INET
                ? (const void *)&((struct sockaddr_in *)at->ai_addr)->sin_addr
                : (const void *)&((struct sockaddr_in6 *)at->ai_addr)->sin6_addr;
            inet_ntop(at->ai_family, address, texts[used++], INET6_ADDRSTRLEN);
        }
        qsort(texts, used, sizeof texts[0], by_text);
        for (int at = 0; at < used; at++) {
            printf(" %s", texts[at]);
        }
        printf("\n");
        if (found) {
            freeaddrinfo(found);
        }
    }
    return 0;
}
