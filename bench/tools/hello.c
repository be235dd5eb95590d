/* hello: the cheapest CGI program there can be; linked without shared libraries. */
#include <unistd.h>

int main(void)
{
    static const char answer[] = "Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
    return write(1, answer, sizeof answer - 1) != (ssize_t)(sizeof answer - 1);
}
