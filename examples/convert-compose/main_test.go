package main

func Example() {
	main()
	// Output:
	// db: mariadb:11.4, 1024 MiB of memory, waits for 0, publishes 0
	// wordpress: wordpress:6.8-apache, 512 MiB of memory, waits for 1, publishes 1
	// line 27: service wordpress: the provider chooses the numbers outside, those that stand here where they are free; "pktcloud lease services" shows them
}
