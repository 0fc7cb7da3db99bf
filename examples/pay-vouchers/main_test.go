package main

func Example() {
	main()
	// Output: the payee's wallet holds 5000 units
}
